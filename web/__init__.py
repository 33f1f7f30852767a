"""HTTP heads, WebSocket frames and browser tabs, for the front end; and the pages that it serves."""
