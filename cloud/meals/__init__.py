"""The sale of meals: a purchase is paid, asked of a machine, and ends delivered or refunded, exactly once."""
