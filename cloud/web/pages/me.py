"""What employees come for: a bike, a meal, their wallet."""

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
