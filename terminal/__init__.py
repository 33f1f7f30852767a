"""What chatroom_client.py needs on a terminal: the console, the line editor, and the dialogue in a room."""
