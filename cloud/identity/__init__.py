"""Who is who on the wire: certificates for devices, broker and ingester, and the key that signs commands."""
