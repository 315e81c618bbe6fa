// Asks for the token that the service wants to see. It is kept for this tab alone.

import { useState } from "react";

/** What a subprotocol of a WebSocket may hold, and every signed token does. */
const TOKEN = /^[\w.~-]+$/;

export function TokenBar({ show }: { show: (token: string) => void }) {
  const [text, setText] = useState("");
  const token = text.trim();
  const isUsable = TOKEN.test(token);
  return (
    <form
      className="token"
      aria-label="Token"
      onSubmit={(event) => {
        event.preventDefault();
        if (isUsable) {
          show(token);
          setText("");
        }
      }}
    >
      <label htmlFor="token">
        The service has not let this page in. It asks for a token, which may be missing, wrong or ended.
      </label>
      <input
        id="token"
        type="password"
        autoComplete="off"
        placeholder="Token (JWT)"
        aria-invalid={token !== "" && !isUsable}
        value={text}
        onChange={(event) => setText(event.target.value)}
      />
      <button type="submit" disabled={!isUsable}>
        Connect
      </button>
    </form>
  );
}
