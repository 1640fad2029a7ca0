"""What every product service's endpoints share: who asks, what is refused and how it is said."""
