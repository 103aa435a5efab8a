// Keeps ages up to date in the server's words (`words.span`), and says when a live page has lost its connection.
(() => {
  const ahead = SERVER_NOW - Date.now();
  const span = (length) => {
    const seconds = Math.max(0, Math.floor(length / 1000));
    if (seconds < 60) return `${seconds} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
    if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h`;
    return `${Math.floor(seconds / 86400)} d`;
  };
  // The text node itself: the framework keeps it, and writes to it when the server has something else to say.
  const put = (element, said) => {
    const node = element.firstChild;
    if (node && node.nodeValue !== said) node.nodeValue = said;
  };
  const renew = () => {
    for (const element of document.querySelectorAll("time[datetime][data-age]")) {
      const length = span(Date.now() + ahead - Date.parse(element.getAttribute("datetime")));
      put(element, element.dataset.age === "ago" ? `${length} ago` : length);
    }
  };
  let wasConnected = false;
  let lostAt = null;
  const watch = () => {
    const banner = document.querySelector("[data-lost]");
    if (!banner || !window.socket) return;
    wasConnected ||= window.socket.connected || window.did_handshake === true;
    const isLost = wasConnected && !window.socket.connected;
    if (isLost === (lostAt !== null)) return;
    lostAt = isLost ? new Date(Date.now() + ahead) : null;
    document.querySelector(".lz-page").classList.toggle("lz-lost", isLost);
    const since = lostAt && `${lostAt.toISOString().slice(0, 19).replace("T", " ")} UTC`;
    banner.textContent = isLost
      ? `Not live since ${since}: the connection to the server is lost. What is shown is as it was then.`
      : "";
  };
  // An address that ends in #results asks for the keyboard to be at the heading of what was found.
  let isSought = location.hash === "#results";
  const find = () => {
    const heading = isSought && document.querySelector("[data-key=results]");
    if (!heading) return;
    isSought = false;
    heading.focus();
  };
  setInterval(find, 100);
  setInterval(() => {
    renew();
    watch();
  }, 1000);
})();
