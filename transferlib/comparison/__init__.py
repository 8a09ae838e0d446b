"""The protocol: arms by seeds by rates, the plan that fits them to a machine, the choice, the table and the verdict."""
