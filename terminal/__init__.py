"""What clients need on a terminal: the console, the line editor, and the dialogue in a room."""
