"""The crew's work: lists, one order with its history, and moving it along its lifecycle."""
