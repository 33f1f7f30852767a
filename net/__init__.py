"""What every server stands on: accepting, connections, conversations, the log, the process, files, TLS."""
