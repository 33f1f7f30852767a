"""The cinema: its seats, the file that holds them, and how they are held, booked and shown."""
