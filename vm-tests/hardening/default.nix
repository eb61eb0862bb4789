# The machines of this story on NixOS; `debian.py` says the same for Debian. There both servers have
# the same systemd.
{ box, client, ... }:
{
  nodes = {
    server = box ./site.json { };
    older = box ./older.json { };
    laptop = client;
    desktop = client;
  };
}
