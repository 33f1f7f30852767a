"""What every server needs: accepting, connections, conversations, the log, the process, files, TLS."""
