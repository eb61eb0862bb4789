// Registers a passkey, or signs in with one. The forms that it serves say what with data-attributes.
"use strict";

function bytes(text) {
  const plain = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(plain, (c) => c.charCodeAt(0));
}

function text(buffer) {
  const plain = String.fromCharCode(...new Uint8Array(buffer));
  return btoa(plain).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

async function post(path, token, value) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "X-CSRF-Token": token, "Content-Type": "application/json" },
    body: JSON.stringify(value),
    credentials: "same-origin",
  });
  if (answer.redirected) {
    window.location.assign(answer.url);
    throw new Error("Sign in again first.");
  }
  if (!answer.ok) {
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const notice = page.querySelector(".notice");
    throw new Error(notice ? notice.textContent : "The server refused it (" + answer.status + ").");
  }
  return answer.json();
}

function descriptors(list) {
  return (list || []).map((each) => ({ ...each, id: bytes(each.id) }));
}

async function register(form) {
  const token = form.elements.csrf.value;
  const name = encodeURIComponent(form.elements.name.value);
  const { publicKey } = await post("/passkeys/begin", token, {});
  publicKey.challenge = bytes(publicKey.challenge);
  publicKey.user.id = bytes(publicKey.user.id);
  publicKey.excludeCredentials = descriptors(publicKey.excludeCredentials);
  const made = await navigator.credentials.create({ publicKey });
  return post("/passkeys/complete?name=" + name, token, {
    id: made.id,
    rawId: text(made.rawId),
    type: made.type,
    response: {
      clientDataJSON: text(made.response.clientDataJSON),
      attestationObject: text(made.response.attestationObject),
    },
    clientExtensionResults: {},
  });
}

async function signIn(form) {
  const token = form.elements.csrf.value;
  const next = encodeURIComponent(form.elements.next.value);
  const { publicKey } = await post("/signin/passkey/begin", token, {});
  publicKey.challenge = bytes(publicKey.challenge);
  publicKey.allowCredentials = descriptors(publicKey.allowCredentials);
  const found = await navigator.credentials.get({ publicKey });
  const given = found.response;
  return post("/signin/passkey/complete?next=" + next, token, {
    id: found.id,
    rawId: text(found.rawId),
    type: found.type,
    response: {
      clientDataJSON: text(given.clientDataJSON),
      authenticatorData: text(given.authenticatorData),
      signature: text(given.signature),
      userHandle: given.userHandle ? text(given.userHandle) : null,
    },
    clientExtensionResults: {},
  });
}

for (const form of document.querySelectorAll("form[data-passkey]")) {
  const said = form.querySelector("[role=status]");
  const act = form.dataset.passkey === "register" ? register : signIn;
  if (!window.PublicKeyCredential) {
    said.textContent = "This browser knows no passkeys at this address.";
    continue;
  }
  form.querySelector("button").disabled = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    said.textContent = "Waiting for your passkey …";
    try {
      window.location.assign((await act(form)).location);
    } catch (error) {
      said.textContent = error.name === "NotAllowedError" ? "No passkey was used. Try again." : error.message;
    }
  });
}
