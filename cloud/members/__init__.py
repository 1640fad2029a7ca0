"""Who may enter: people, their passwords, their sessions."""
