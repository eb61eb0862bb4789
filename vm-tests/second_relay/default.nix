# The machines of this story on NixOS; `debian.py` says the same for Debian.
{ pkgs, box, client, ... }:
let
  authority = import ../authority.nix { inherit pkgs; hosts = [ "server" "relay1" "relay2" ]; };
  trusting.security.pki.certificateFiles = [ "${authority}/ca.pem" ];
  meshKey = pkgs.writeText "mesh.key" "${pkgs.lib.concatStrings (pkgs.lib.genList (_: "5e") 32)}\n";
  # Root puts secrets where units expect them, outside the store, as sops-nix or agenix would.
  secret = names: {
    imports = [ trusting ];
    systemd.tmpfiles.rules = pkgs.lib.mapAttrsToList (name: source: "C /run/story/${name} 0400 root root - ${source}") names;
    services.headwater.secrets = pkgs.lib.mapAttrs (name: _: "/run/story/${name}") names;
  };
  certificate = host: {
    "fullchain.pem" = "${authority}/${host}/fullchain.pem";
    "key.pem" = "${authority}/${host}/key.pem";
  };
  relay = host: site: box site {
    imports = [ (secret (certificate host // { "mesh.key" = meshKey; })) ];
    services.headwater.role = "relay";
  };
  node = { imports = [ client trusting ]; };
in
{
  nodes = {
    server = box ./site.json (secret (certificate "server"));
    relay1 = relay "relay1" ./relay1.json;
    relay2 = relay "relay2" ./relay2.json;
    laptop = node;
    desktop = node;
  };
}
