"""Who may do what: keys, quotas, the audit log and idempotent requests."""
