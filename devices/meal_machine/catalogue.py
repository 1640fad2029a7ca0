"""The meals a machine may hold: names and allergens for people. Prices live on the machine (`set_menu`)."""

from dataclasses import dataclass
from typing import Final

from fleet.kind import Text


@dataclass(frozen=True, slots=True)
class Meal:
    """One boxed meal. `price_fen` is the price a machine is delivered with."""

    sku: str
    title: Text
    allergens: Text
    price_fen: int


MEALS: Final[tuple[Meal, ...]] = (
    Meal("braised-pork-rice", Text("红烧肉饭", "Braised pork with rice"), Text("大豆、小麦", "soy, wheat"), 2200),
    Meal("kungpao-chicken", Text("宫保鸡丁饭", "Kung pao chicken with rice"), Text("花生、大豆", "peanut, soy"), 1900),
    Meal("tomato-beef", Text("番茄牛腩饭", "Tomato beef brisket with rice"), Text("芹菜", "celery"), 2600),
    Meal(
        "mapo-tofu", Text("麻婆豆腐饭(素)", "Mapo tofu with rice (vegetarian)"), Text("大豆、小麦", "soy, wheat"), 1500
    ),
    Meal("curry-chicken", Text("咖喱鸡饭", "Chicken curry with rice"), Text("牛奶、小麦", "milk, wheat"), 2000),
    Meal("leek-dumplings", Text("韭菜鸡蛋饺子", "Leek and egg dumplings"), Text("鸡蛋、小麦", "egg, wheat"), 1600),
    Meal("eel-rice", Text("蒲烧鳗鱼饭", "Grilled eel with rice"), Text("鱼、大豆、小麦", "fish, soy, wheat"), 3200),
    Meal(
        "seafood-noodles",
        Text("大连海鲜面", "Dalian seafood noodles"),
        Text("甲壳类、小麦", "crustaceans, wheat"),
        2400,
    ),
)

_BY_SKU: Final = {meal.sku: meal for meal in MEALS}


def title_of(sku: str) -> Text:
    """A meal's name for people; a meal that is not in the catalogue is called by its article number."""
    meal = _BY_SKU.get(sku)
    return meal.title if meal else Text(sku, sku)


def allergens_of(sku: str) -> Text:
    """Allergens for people; "not declared" for a meal that is not in the catalogue."""
    meal = _BY_SKU.get(sku)
    return meal.allergens if meal else Text("未标明", "not declared")
