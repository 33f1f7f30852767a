"""What the interactive clients share: the console, the line editor, and the dialogues for a chat room and a seat."""
