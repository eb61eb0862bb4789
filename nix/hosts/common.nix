# What the example hosts share. Change what is marked, then install as docs/nixos.md says.
{ lib, ... }:
{
  # ── change ────────────────────────────────────────────────────────────────────────────────
  users.users.root.openssh.authorizedKeys.keys = [ "ssh-ed25519 AAAA… you@example" ];
  services.headwater.settings = {
    server_url = "https://hw.example.com";
    tls = {
      mode = "acme"; # a certificate of Let's Encrypt, by port 443 or 80; no secret is needed
      email = "admin@example.com";
    };
    listen_plain = [ "0.0.0.0:80" "[::]:80" ];
    tailnet.base_domain = "tailnet.example.net";
  };

  # ── keep ──────────────────────────────────────────────────────────────────────────────────
  services.headwater = {
    enable = true;
    openFirewall = true;
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
  system.stateVersion = "26.11";
}
