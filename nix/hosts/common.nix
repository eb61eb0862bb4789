# What both example hosts share. Change what is marked, then install as docs/nixos.md says.
{ lib, ... }:
{
  # ── change ────────────────────────────────────────────────────────────────────────────────
  users.users.root.openssh.authorizedKeys.keys = [ "ssh-ed25519 AAAA… you@example" ];
  services.headwater.settings = {
    server_url = "https://hw.example.com";
    tls.cert_file = "/var/lib/acme/hw.example.com/fullchain.pem";
    tls.key_file = "/var/lib/acme/hw.example.com/key.pem";
    listen_plain = [ "0.0.0.0:80" "[::]:80" ];
    tailnet.base_domain = "tailnet.example.net";
  };

  # ── keep ──────────────────────────────────────────────────────────────────────────────────
  services.headwater = {
    enable = true;
    openFirewall = true;
    supplementaryGroups = [ "acme" ];
  };
  # Certificates by DNS, so that no other server needs port 80 or 443; a renewed one is noticed by
  # itself within ten seconds.
  security.acme = {
    acceptTerms = true;
    defaults.email = "admin@example.com";
    certs."hw.example.com" = {
      dnsProvider = "rfc2136";
      environmentFile = "/run/secrets/acme-dns";
      group = "acme";
    };
  };

  networking.nftables.enable = true;
  networking.firewall.enable = true;
  services.openssh = {
    enable = true;
    settings.PasswordAuthentication = false;
  };
  nix.settings.experimental-features = [ "nix-command" "flakes" ];
  nix.gc.automatic = true;
  zramSwap.enable = true;
  time.timeZone = lib.mkDefault "UTC";
  system.stateVersion = "25.11";
}
