"""The cinema: its seats, their file, and how they are held and booked."""
