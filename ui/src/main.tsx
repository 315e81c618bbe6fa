// Puts the layers together: stream → store → views.

import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Store } from "./store/store";
import { createClient, keepToken } from "./stream/browser";
import { App } from "./views/App";
import type { Commands } from "./views/TopBar";
import "./views/style.css";

const store = new Store({
  now: () => performance.now(),
  requestFrame: (action) => requestAnimationFrame(action),
  every: (ms, action) => setInterval(action, ms),
});
const client = createClient(store.apply);
const commands: Commands = {
  retryNow: () => client.retryNow(),
  goTo: (place) => client.goTo(place),
  showToken: (token) => {
    keepToken(token);
    client.retryNow();
  },
};
const root = document.getElementById("root");
if (root !== null) {
  createRoot(root).render(
    <StrictMode>
      <App store={store} commands={commands} />
    </StrictMode>,
  );
}
void client.start();
