"""Second stage: what each device is now, folded from what it said."""
