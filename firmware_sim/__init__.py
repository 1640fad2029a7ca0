"""The simulated world: seeded hardware on one clock, spoken to in bytes.

It knows devices only by the roles of `fleet.kind`, never a kind by name, and imports neither edge nor cloud.
"""
