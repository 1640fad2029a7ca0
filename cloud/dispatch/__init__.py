"""What people are told and given to do: alarms, calls, work orders and notifications.

`planner` turns the decisions of the rules into rows of the pipeline's commit; `outbox` delivers the
notifications afterwards. Nothing here decides when a call escalates or an alarm is raised: rules do.
"""
