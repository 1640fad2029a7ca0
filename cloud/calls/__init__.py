"""Emergency calls as people see them: each second of them, and accepting one. Nothing here can clear a call."""
