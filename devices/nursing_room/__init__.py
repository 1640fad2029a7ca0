"""Nursing rooms: an emergency button with lights and a sounder, a milk fridge, a sterilizer cabinet."""
