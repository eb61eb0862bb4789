# The machines of this story on NixOS; `debian.py` says the same for Debian.
{ box, client, ... }:
{
  nodes = {
    server = box ./site.json { };
    laptop = client;
    desktop = client;
    tablet = client;
    phone = client;
  };
}
