"""What clients need on a terminal: the console, the line editor, and the dialogue in a room."""

import net  # noqa: F401 - checks the version of Python
