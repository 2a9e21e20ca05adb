# The report of a split migration, as a file and as a page in a browser.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'ReportPage.ps1'))
    $split = Get-StandingSplit
    $place = [IO.Directory]::CreateTempSubdirectory('report-').FullName
    Wait-Until { (Get-VmRemotePaging paged).RemoteFaultLatency.Count -gt 0 } 'a page was fetched'
}

AfterAll {
    [IO.Directory]::Delete($place, $true)
}

Describe 'Export-SplitMigrationReport' {
    It 'writes the page by VM, id and from the pipeline; says nothing, and gives the file with -PassThru' {
        Export-SplitMigrationReport paged "$place/report.html" | Should -BeNullOrEmpty
        $file = $split | Export-SplitMigrationReport -Path "$place/piped.html" -PassThru
        Assert-Output Export-SplitMigrationReport $file
        $file.FullName | Should -Be "$place/piped.html"
        (Get-VmRemotePaging paged | Export-SplitMigrationReport -Path "$place/paging.html" -PassThru).Length | Should -BeGreaterThan 5000
        (Export-SplitMigrationReport -SplitId $split.SplitId -Path "$place/id.html" -PassThru).Length | Should -BeGreaterThan 5000
    }

    It 'writes a file for each migration into a folder, and never one over another' {
        $file = Export-SplitMigrationReport pag*, nobod* $place -PassThru
        $file.FullName | Should -Be "$place/paged-$($split.SplitId.Substring(0, 8)).html"
        $file.Length | Should -BeGreaterThan 5000
        $failures = $null
        $split, $split | Export-SplitMigrationReport -Path "$place/once.html" -ErrorVariable failures -ErrorAction SilentlyContinue
        Assert-Failure $failures[0] ReportsNeedFolder InvalidArgument $split.SplitId
        [IO.File]::Exists("$place/once.html") | Should -BeTrue
    }

    It 'has everything in it and nothing outside' {
        $page = [IO.File]::ReadAllText("$place/report.html")
        foreach ($part in 'paged', 'source', 'All figures', 'prefers-color-scheme', '@media print', 'viewport') { $page.Contains($part) | Should -BeTrue }
        $page | Should -Not -Match '(src|href)=|<script|url\('
        $document = [Xml.XmlDocument]::new()
        # All of it but HTML's own void elements is XML too, so that an open tag or a bare ampersand shows.
        $document.LoadXml(($page -replace '^<!DOCTYPE html>\s*' -replace '<meta ([^>]*)>', '<meta $1/>'))
    }

    It 'reads well in a browser: light and dark, on a phone and on a wide screen, without script or network' {
        if (-not (Get-Browser)) { Set-ItResult -Skipped -Because 'there is no Chromium on this machine; ./build.sh Test installs the package chromium on Debian, elsewhere it takes one in PATH' }
        $looks = @(Measure-Page "$place/report.html" $place)
        $looks | Should -HaveCount 6
        foreach ($look in $looks) {
            $what = "$($look.Width) px, $($look.Scheme)"
            $look.Beyond | Should -BeLessOrEqual 0 -Because $what
            foreach ($heading in 'Split migration of paged', 'Time line', 'Where the memory lies', 'How long it waited for memory on a sub-host, over time', 'All figures') {
                $look.Headings | Should -Contain $heading -Because $what
            }

            # Since what depends on whether another file has had the standing VM's worker started again.
            @($look.Headings) -match '^Remote paging since the ' | Should -HaveCount 1 -Because $what

            $look.Contrast | Should -BeGreaterOrEqual 4.5 -Because "$what, $($look.Worst)"
            $look.Empty | Should -Be 0 -Because $what
            $look.Pictures | Should -BeGreaterOrEqual 5 -Because $what
            $look.Fetched | Should -HaveCount 0
        }

        @($looks | Where-Object Scheme -EQ 'dark')[0].Background | Should -Not -Be @($looks | Where-Object Scheme -EQ 'light')[0].Background
        [IO.File]::ReadAllText("$place/browser.log") | Should -Not -Match 'CONSOLE'
    }

    It 'can be printed' {
        if (-not (Get-Browser)) { Set-ItResult -Skipped -Because 'there is no Chromium on this machine' }
        $null = Invoke-Browser $place @('--no-pdf-header-footer', "--print-to-pdf=$place/report.pdf", "file://$place/report.html")
        $pdf = [Text.Encoding]::Latin1.GetString([IO.File]::ReadAllBytes("$place/report.pdf"))
        $pdf | Should -Match '^%PDF-'
        [regex]::Matches($pdf, '/Type\s*/Page\b').Count | Should -BeGreaterOrEqual 1
        $keep = [Environment]::GetEnvironmentVariable('FCTRANS_KEEP_REPORT')
        if ($keep) { foreach ($name in 'report.html', 'report.pdf') { [IO.File]::Copy("$place/$name", [IO.Path]::Combine($keep, $name), $true) } }
    }

    It 'writes nothing with -WhatIf' {
        Export-SplitMigrationReport paged "$place/other.html" -WhatIf
        [IO.File]::Exists("$place/other.html") | Should -BeFalse
    }

    It 'names what can not be' {
        Assert-Failure ({ Export-SplitMigrationReport paged /nowhere/report.html -ErrorAction Stop } | Should -Throw -PassThru) ReportUnwritable InvalidArgument paged
        Assert-Failure ({ Export-SplitMigrationReport shared "$place/x.html" -ErrorAction Stop } | Should -Throw -PassThru) MigrationNotFound ObjectNotFound shared
    }

    It 'completes VMs and ids' {
        Get-Completion 'Export-SplitMigrationReport pag' | Should -Be 'paged'
        Get-Completion 'Export-SplitMigrationReport -SplitId ' | Should -Be $split.SplitId
    }

    It 'ends at Ctrl+C while a host does not answer, and leaves no file' {
        Assert-StopsWhileWaiting sub Export-SplitMigrationReport @{ VM = 'paged'; Path = "$place/stopped.html" }
        [IO.File]::Exists("$place/stopped.html") | Should -BeFalse
    }
}
