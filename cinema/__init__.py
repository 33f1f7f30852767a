"""The cinema: its seats and their file, how seats are held, booked and shown, and how a customer chooses one."""

import net  # noqa: F401 - checks the version of Python
