"""How each person is reached, what they want to hear, and every attempt to tell them."""
