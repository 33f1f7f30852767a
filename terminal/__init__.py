"""What the interactive clients share: the line being typed, and a conversation in a chat room."""
