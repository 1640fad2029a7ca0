"""First stage: decode, compare identities, keep each lane in order without holes, set aside what can't be used."""
