"""The rules of the chat, as checks that run against any server, in any language; they need pytest alone."""
