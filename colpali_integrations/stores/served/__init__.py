"""A store on a server of this package: the calls of its engine over HTTP, on the server and on other machines."""
