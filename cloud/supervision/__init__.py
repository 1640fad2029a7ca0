"""The system watching itself: synthetic calls, proof tests of the buttons, the dead-man's switch."""
