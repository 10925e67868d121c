"""Many short jobs, some workers, and somebody who kills, cuts and stops all of it at random; then a ledger."""
