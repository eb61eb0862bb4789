# The machines of this story on NixOS; `debian.py` says the same for Debian. The number of a machine is
# its place among the sorted names, under both drivers.
{ box, client, tools, ... }:
let
  # The story itself makes it translate; nothing of NixOS' own may stand in the way.
  router = vlan: {
    imports = [ tools ];
    virtualisation.vlans = [ 1 vlan ];
    networking.firewall.enable = false;
  };
  behind = vlan: gateway: {
    imports = [ client ];
    virtualisation.vlans = [ vlan ];
    networking.defaultGateway = "192.168.${toString vlan}.${toString gateway}";
  };
in
{
  nodes = {
    server = box ./site.json { };
    home = router 2;
    office = router 3;
    hotel = router 4;
    laptop = behind 2 2;
    desktop = behind 3 5;
    phone = behind 4 3;
  };
}
