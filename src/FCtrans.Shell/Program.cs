using System.Management.Automation;

namespace FCtrans.Shell;

internal static class Program
{
    private const string Usage = """
        A small PowerShell for machines without pwsh: the engine's own cmdlets, nothing else.

        fctrans-shell [-File] SCRIPT [ARGUMENT…]   run a script
        fctrans-shell -Command TEXT                run a command; '-' reads it from standard input
        fctrans-shell                              interactive prompt

          -NoProfile       do not run the profile
          -NonInteractive  never ask: what needs an answer fails
          -NoExit          go on with a prompt afterwards
          -NoLogo          no greeting
          -WorkingDirectory DIRECTORY
          -Version, -Help
        """;

    private static int Main(string[] args)
    {
        CommandLine line;
        try
        {
            line = CommandLine.Parse(args);
        }
        catch (Exception e) when (e is ArgumentException or FormatException)
        {
            Console.Error.WriteLine(e.Message);
            return 64; // as pwsh does (EX_USAGE)
        }

        switch (line.What)
        {
            case CommandLine.Action.Help:
                Console.WriteLine(Usage);
                return 0;
            case CommandLine.Action.Version:
                Console.WriteLine($"PowerShell engine {typeof(PSObject).Assembly.GetName().Version}");
                return 0;
        }

        if (line.WorkingDirectory is { } directory)
        {
            if (!Directory.Exists(directory))
            {
                Console.Error.WriteLine($"The working directory '{directory}' does not exist.");
                return 64;
            }

            Environment.CurrentDirectory = directory;
        }

        using var session = new Session(line);
        return session.Run();
    }
}
