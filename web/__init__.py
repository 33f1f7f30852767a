"""What the front end speaks with a browser: HTTP heads and WebSocket frames; and the pages that it serves."""
