# Dot-sourced in BeforeAll: looks at a report's page in a real browser, Chromium without a screen.

<# The browser; nothing where there is none. #>
function Get-Browser {
    foreach ($name in 'chromium', 'chromium-headless-shell', 'google-chrome', 'chrome') {
        $found = @(Get-Command $name -CommandType Application -ErrorAction Ignore)
        if ($found.Count -gt 0) { return $found[0].Source }
    }
}

<# Runs it once, with a profile of its own and no network. Returns what it printed; what it had to say goes to a file. #>
function Invoke-Browser([string] $Place, [string[]] $Arguments) {
    $start = [Diagnostics.ProcessStartInfo]::new((Get-Browser))
    $all = @('--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--hide-scrollbars', '--enable-logging=stderr'
        '--host-resolver-rules=MAP * ~NOTFOUND', '--disable-background-networking', "--user-data-dir=$Place/profile") + $Arguments
    foreach ($argument in $all) { $start.ArgumentList.Add($argument) }
    $start.RedirectStandardOutput = $true
    $start.RedirectStandardError = $true
    $process = [Diagnostics.Process]::Start($start)
    try {
        $errors = $process.StandardError.ReadToEndAsync()
        $output = $process.StandardOutput.ReadToEndAsync()
        if (-not $process.WaitForExit(120000)) { throw 'The browser did not end within 120 s.' }
        $process.WaitForExit()
        [IO.File]::WriteAllText("$Place/browser.log", $errors.Result)
        if ($process.ExitCode -ne 0) { throw "The browser failed ($($process.ExitCode)): $($errors.Result)" }
        $output.Result
    }
    finally {
        if (-not $process.HasExited) { $process.Kill($true) }
        $process.Dispose()
    }
}

<#
What the browser makes of the page, for each width and each of light and dark: a table of width, scheme, how far the content goes
beyond the width, the texts of its headings, the least contrast of a text with what is behind it, its pictures that have no size, and
what it has fetched. The page has no script and needs none: a page around it measures.
#>
function Measure-Page([string] $Path, [string] $Place, [int[]] $Width = @(390, 820, 1280)) {
    $frames = foreach ($one in $Width) {
        foreach ($scheme in 'light', 'dark') {
            "<iframe data-scheme=""$scheme"" style=""width:${one}px;height:900px;border:0;color-scheme:$scheme"" src=""file://$Path""></iframe>"
        }
    }

    [IO.File]::WriteAllText("$Place/around.html", @"
<!DOCTYPE html><html><head><meta charset="utf-8"><meta name="color-scheme" content="light dark"></head><body>$($frames -join "`n")<pre id="result"></pre><script>
function channel(v){v/=255;return v<=.03928?v/12.92:Math.pow((v+.055)/1.055,2.4)}
function parse(c){const m=c.match(/[\d.]+/g).map(Number);return m.length>3&&m[3]===0?null:m}
function light(c){return .2126*channel(c[0])+.7152*channel(c[1])+.0722*channel(c[2])}
function behind(w,e){for(;e;e=e.parentElement){const c=parse(w.getComputedStyle(e).backgroundColor);if(c)return c}return [255,255,255]}
addEventListener('load',()=>{document.getElementById('result').textContent=JSON.stringify([...document.querySelectorAll('iframe')].map(f=>{
  const w=f.contentWindow,d=f.contentDocument,root=d.documentElement;let least=99,worst='';
  for(const e of d.querySelectorAll('h1,h2,h3,p,span,td,th,summary,strong,b,footer,text')){if(!e.textContent.trim())continue;
    const s=w.getComputedStyle(e),c=parse(e.namespaceURI.includes('svg')?s.fill:s.color);if(!c)continue;
    const a=light(c),b=light(behind(w,e.closest('svg')?.parentElement??e)),r=(Math.max(a,b)+.05)/(Math.min(a,b)+.05);if(r<least){least=r;worst=e.tagName+': '+e.textContent.trim().slice(0,40)}}
  return {width:f.clientWidth,scheme:f.dataset.scheme,beyond:Math.max(root.scrollWidth,d.body.scrollWidth)-f.clientWidth,background:w.getComputedStyle(d.body).backgroundColor,
    headings:[...d.querySelectorAll('h1,h2,h3')].map(h=>h.textContent),contrast:least,worst:worst,
    empty:[...d.querySelectorAll('svg,table')].filter(e=>e.getBoundingClientRect().width<50||e.getBoundingClientRect().height<10).length,
    pictures:d.querySelectorAll('svg').length,fetched:w.performance.getEntriesByType('resource').map(r=>r.name)}}))})
</script></body></html>
"@)
    $dom = Invoke-Browser $Place @('--allow-file-access-from-files', '--dump-dom', "file://$Place/around.html")
    $json = [Net.WebUtility]::HtmlDecode(([regex]::Match($dom, '(?s)<pre id="result">(.*?)</pre>')).Groups[1].Value)
    if (-not $json) { throw "The page could not be measured: $([IO.File]::ReadAllText("$Place/browser.log"))" }
    $document = [Text.Json.JsonDocument]::Parse($json)
    try {
        foreach ($frame in $document.RootElement.EnumerateArray()) {
            [pscustomobject] @{
                Width = $frame.GetProperty('width').GetInt32(); Scheme = $frame.GetProperty('scheme').GetString(); Beyond = $frame.GetProperty('beyond').GetInt32()
                Background = $frame.GetProperty('background').GetString(); Headings = @($frame.GetProperty('headings').EnumerateArray() | ForEach-Object { $_.GetString() })
                Contrast = $frame.GetProperty('contrast').GetDouble(); Worst = $frame.GetProperty('worst').GetString()
                Empty = $frame.GetProperty('empty').GetInt32(); Pictures = $frame.GetProperty('pictures').GetInt32()
                Fetched = @($frame.GetProperty('fetched').EnumerateArray() | ForEach-Object { $_.GetString() })
            }
        }
    }
    finally { $document.Dispose() }
}
