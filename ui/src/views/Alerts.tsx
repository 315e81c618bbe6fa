// Messages that stay until they are dismissed.

import type { Alert } from "../model/alerts";

export function Alerts({ alerts, dismiss }: { alerts: Alert[]; dismiss: (key: string) => void }) {
  if (alerts.length === 0) {
    return null;
  }
  return (
    <div className="alerts">
      {alerts.map((alert) => (
        <div key={alert.key} className={`alert alert-${alert.level}`} role="alert">
          <span>
            {alert.text}
            {alert.count > 1 ? <span className="alert-count"> ×{alert.count}</span> : null}
          </span>
          <button type="button" aria-label="Dismiss" onClick={() => dismiss(alert.key)}>
            ✕
          </button>
        </div>
      ))}
    </div>
  );
}
