"""Words for what programs call by a name: states, events, actions, reasons. Listed here so that they get translated.

A kind from outside may bring names that stand in no list; they are shown with their underscores taken out.
"""

from gettext import NullTranslations
from typing import Final

from devices.meal_machine.catalogue import title_of


def _(text: str) -> str:
    """Marks a message for extraction."""
    return text


WORDS: Final = {
    # roles
    "employee": _("Employee"),
    "crew": _("Crew"),
    "admin": _("Admin"),
    # devices
    "online": _("Online"),
    "silent": _("Silent"),
    "retired": _("Retired"),
    # alarms and calls
    "unacknowledged": _("Not acknowledged"),
    "acknowledged": _("Acknowledged"),
    "returned_unacknowledged": _("Over, not acknowledged"),
    "normal": _("Normal"),
    "calling": _("Calling for help"),
    "attended": _("Somebody is there"),
    "cleared": _("Cleared in the room"),
    "emergency": _("Emergency"),
    "high": _("High"),
    "medium": _("Medium"),
    "low": _("Low"),
    # work orders
    "draft": _("Draft"),
    "dispatchable": _("Waiting for a crew"),
    "assigned": _("Assigned"),
    "accepted": _("Accepted"),
    "travelling": _("On the way"),
    "in_progress": _("In progress"),
    "on_hold": _("On hold"),
    "done": _("Done"),
    "cannot_complete": _("Cannot be done"),
    "cancelled": _("Cancelled"),
    "accept": _("Accept"),
    "travel": _("Set off"),
    "start": _("Start work"),
    "hold": _("Put on hold"),
    "resume": _("Resume"),
    "complete": _("Done"),
    "give_up": _("Cannot be done"),
    "repair": _("Repair"),
    "restock": _("Restock"),
    "battery": _("Battery swap"),
    "rebalance": _("Move bikes"),
    "inspection": _("Inspection"),
    # commands
    "queued": _("Queued"),
    "sent": _("Sent"),
    "executing": _("Being carried out"),
    "succeeded": _("Succeeded"),
    "failed": _("Failed"),
    "refused": _("Refused"),
    "expired": _("Expired"),
    "busy": _("the device is busy"),
    "jam": _("something is jammed"),
    "output_not_empty": _("the output is not empty"),
    "heater_fault": _("the heater is faulty"),
    "timeout": _("it took too long"),
    "link_lost": _("the connection was lost"),
    "power_lost": _("the power failed"),
    "out_of_stock": _("sold out"),
    "lot_expired": _("the meal is past its time"),
    "locked_out": _("locked for safety"),
    "hardware_silent": _("the hardware does not answer"),
    "not_possible": _("not possible now"),
    "unknown": _("unknown"),
    "unlock": _("Unlock"),
    "lock": _("Lock"),
    "ring": _("Ring the bell"),
    "locate": _("Find position"),
    "reboot": _("Restart"),
    "set_interval": _("Set report interval"),
    "vend": _("Sell a meal"),
    "cancel": _("Cancel"),
    "lock_lane": _("Lock for sale"),
    "unlock_lane": _("Unlock after service"),
    "set_menu": _("Set menu and prices"),
    "start_self_test": _("Start self-test"),
    "show_received": _("Show “received”"),
    "show_help_coming": _("Show “help is coming”"),
    "dispense": _("Sell a meal"),
    "unlock_after_service": _("Unlock after service"),
    "release": _("Give out again"),
    "reopen": _("Open again"),
    "offline": _("it can't be reached"),
    "no_data": _("it has not reported yet"),
    "door_open": _("its door is open"),
    "pressed": _("Button pressed"),
    "cleared_at_origin": _("Cleared in the room"),
    "cord_removed": _("Cord removed"),
    "cord_replaced": _("Cord put back"),
    "self_test_result": _("Self-test"),
    "sterilizer_cycle_finished": _("Sterilizer cycle ended"),
    "fridge_excursion_ended": _("Fridge cold again"),
    "mains_lost": _("Power lost"),
    "mains_restored": _("Power back"),
    "restarted": _("Restarted"),
    "sale_reserved": _("Sale: box reserved"),
    "sale_heating": _("Sale: heating"),
    "sale_dispensing": _("Sale: coming out"),
    "sale_delivered": _("Sale: delivered"),
    "sale_failed": _("Sale failed"),
    "lane_jammed": _("Lane jammed"),
    "door_opened": _("Door opened"),
    "door_closed": _("Door closed"),
    "power_restored": _("Power back"),
    "lanes_locked": _("Locked for safety"),
    "lanes_unlocked": _("Open for sale again"),
    "restocked": _("Restocked"),
    "idle": _("Idle"),
    "running": _("Running"),
    "received": _("Call received"),
    "help_coming": _("Help is coming"),
    "aborted": _("Aborted"),
    "finished": _("Finished"),
    "passed": _("Passed"),
    "none": _("none"),
    "ready": _("Ready"),
    "battery_pack": _("Battery pack"),
    "button_battery": _("Button battery"),
    "uv_lamp": _("UV lamp"),
    # bike
    "locked": _("Locked"),
    "unlocked": _("Unlocked"),
    "jammed": _("Jammed"),
    "lock_opened": _("Lock opened"),
    "lock_closed": _("Lock closed"),
    "lock_jammed": _("Lock jammed"),
    "moved_while_locked": _("Moved while locked"),
    "fall": _("Fell over"),
    "tamper": _("Tampered with"),
    "battery_low": _("Battery low"),
    # rides and purchases
    "unlocking": _("Unlocking"),
    "riding": _("Riding"),
    "ended": _("Ride ended"),
    "never_began": _("The ride never began"),
    "requested": _("Requested"),
    "payment_pending": _("Paying"),
    "paid": _("Paid"),
    "payment_failed": _("Payment failed"),
    "reserved": _("Reserved"),
    "heating": _("Heating"),
    "dispensing": _("Coming out"),
    "delivered": _("Delivered"),
    "dispense_failed": _("Nothing came out"),
    "refund_pending": _("Refund on its way"),
    "refunded": _("Refunded"),
    "refund_failed": _("Refund failed"),
    "in_doubt": _("Being checked"),
    "manual": _("We are looking into it"),
}

PROBLEMS: Final = {
    "not_found": _("It does not exist, or it is not yours to see."),
    "not_allowed": _("Your role does not include this. Ask an admin."),
    "csrf": _("The page was open for too long. Go back, reload it and try again."),
    "foreign_origin": _("The request came from another site and was refused."),
    "retired": _("The device is retired."),
    "call_open": _("There is an open emergency call; it ends only in the room."),
    "not_taken": _("The device takes no more commands now. Try again in a minute."),
    "not_to_acknowledge": _("Somebody was faster, or it is over already. The list is up to date now."),
    "not_in_this_state": _("The order has moved on meanwhile. The list is up to date now."),
    "not_yours": _("This order is somebody else's."),
    "ride_open": _("You are in a ride. Lock that bike first."),
    "bike_taken": _("Somebody else is using this bike. Take another one."),
    "bike_offline": _("This bike can't be reached now. Take another one."),
    "bike_not_rentable": _("This bike needs the crew first. Take another one."),
    "bike_busy": _("This bike is busy. Take another one."),
    "top_up_first": _("There is not enough money in your wallet for a ride. Ask the union's office to top it up."),
    "insufficient_funds": _("There is not enough money in your wallet for this meal. Nothing was charged."),
    "role_not_here": _("This server does not offer that. Use the address for people."),
    "not_priced": _("This meal has no price yet. Choose another one."),
    "sold_out": _("This meal was just sold out. Choose another one."),
    "too_many_open": _("Wait until your other meals are ready."),
    "too_late": _("The meal is already coming out."),
    "offline": _("This machine can't be reached now. Choose another one."),
    "invalid_input": _("Something in the form is not right. Check it and try again."),
    "internal": _("Something failed on our side. Nothing was lost; try again in a minute."),
}


def explain(catalogue: NullTranslations, code: str, detail: str) -> str:
    """What went wrong, for people; the detail for programs if there are no words for the code."""
    known = PROBLEMS.get(code)
    return catalogue.gettext(known) if known else detail


def word(catalogue: NullTranslations, language: str, name: object) -> str:
    """The word for a name, or a meal's title for its article number."""
    known = WORDS.get(str(name))
    if known:
        return catalogue.gettext(known)
    meal = title_of(str(name))
    return meal.in_language(language) if meal.zh != name else str(name).replace("_", " ")
