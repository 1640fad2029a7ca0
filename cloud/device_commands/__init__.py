"""Commands to devices: recorded in SQL first, signed, sent once, and followed to their end."""
