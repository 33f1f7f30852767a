"""The dormitory: its wire format, its back ends, and what its main server does for a client."""

import net  # noqa: F401 - checks the version of Python
