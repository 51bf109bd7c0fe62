(() => {
  const PATIENCE = 60_000; // ms after which the page says that Python does not answer
  const status = document.getElementById('fl-page-status');
  const cells = () => document.getElementById('rendered_cells');

  // Voilà was built with an earlier JupyterLab than the widgets, which work. Each shared module says so.
  const { warn } = console;
  console.warn = (...words) => String(words[0]).startsWith('Unsatisfied version') || warn.apply(console, words);

  // The light or dark styles come from media queries. These attributes tell the widgets which one it is.
  const dark = window.matchMedia('(prefers-color-scheme: dark)');
  const tellTheme = () => {
    document.body.dataset.jpThemeLight = String(!dark.matches);
    document.body.dataset.jpThemeName = dark.matches ? 'JupyterLab Dark' : 'JupyterLab Light';
  };
  dark.addEventListener('change', tellTheme);
  tellTheme();

  const late = setTimeout(() => {
    status.textContent = 'Python has not answered for 60 seconds. Reload the page, or look at the terminal of florence-lab explore.';
  }, PATIENCE);

  /** Replace the words about loading once the panel, or an error in its place, is in the page. */
  const watch = () => {
    const isReady = () => cells().querySelector('.fl-panel, .jp-RenderedText');
    const finish = () => {
      clearTimeout(late);
      status.textContent = 'The explorer is ready.';
      document.body.classList.add('fl-page-ready');
    };
    if (isReady()) return finish();
    const observer = new MutationObserver(() => {
      if (!isReady()) return;
      observer.disconnect();
      finish();
    });
    observer.observe(cells(), { childList: true, subtree: true });
  };

  // Voilà tells the server that the page is left only when `beforeunload` comes, which closing a tab may skip.
  window.addEventListener('pagehide', () => {
    const { baseUrl, kernelId } = JSON.parse(document.getElementById('jupyter-config-data')?.textContent ?? '{}');
    const form = new FormData();
    form.append('_xsrf', document.cookie.match(/\b_xsrf=([^;]*)/)?.[1] ?? '');
    if (kernelId) navigator.sendBeacon(`${baseUrl}voila/api/shutdown/${kernelId}`, form);
  });
  window.addEventListener('pageshow', ({ persisted }) => persisted && window.location.reload());

  // Voilà calls these. It sets `themeLoaded` and calls `voila_finish` again when its script has loaded.
  window.voila_heartbeat = () => {};
  window.voila_process = () => {};
  window.voila_finish = () => {
    if (!window.themeLoaded) {
      window.cellLoaded = true;
      return;
    }
    cells().style.display = '';
    watch();
  };
})();
