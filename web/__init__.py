"""HTTP heads, WebSocket frames and browser tabs, for the front end; and the pages that it serves."""

import net  # noqa: F401 - checks the version of Python
