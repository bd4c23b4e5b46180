"""The Web API's methods, one module per family; each offers a table `METHODS`."""
