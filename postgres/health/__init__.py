"""How a server is: what a DBA would look at, collected cheaply and with a limit on everything."""
