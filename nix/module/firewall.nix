# The ports that clients reach; those of loopback addresses stay closed.
{ config, lib, ... }:
let
  cfg = config.services.headwater;
  inherit (cfg.made) plan;
in
{
  options.services.headwater.openFirewall = lib.mkOption {
    type = lib.types.bool;
    default = false;
    description = "Open the ports that `settings` listens on, TCP and UDP.";
  };

  config = lib.mkIf (cfg.enable && cfg.openFirewall) {
    networking.firewall.allowedTCPPorts = plan.tcpPorts;
    networking.firewall.allowedUDPPorts = plan.udpPorts;
  };
}
